"""What a call costs: price sources, names as they really occur, and rates compiled to exact integers."""
